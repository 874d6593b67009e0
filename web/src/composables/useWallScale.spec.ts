import { expect, it } from 'vitest'
import { placeWall } from './useWallScale'

it.each([
  ['its own size', 1920, 1080, { scale: 1, left: 0, top: 0 }],
  ['4K', 3840, 2160, { scale: 2, left: 0, top: 0 }],
  ['a wider wall', 3840, 1080, { scale: 1, left: 960, top: 0 }],
  ['a taller window', 960, 1080, { scale: 0.5, left: 0, top: 270 }],
])('fits %s', (_, width, height, placement) => expect(placeWall(width, height)).toEqual(placement))
