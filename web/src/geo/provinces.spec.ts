import china from 'echarts-map-data/map/json/china.json'
import { expect, it } from 'vitest'
import { PROVINCES, province } from './provinces'

it('names each region of the map exactly once', () => {
  const names = china.features.map((feature) => feature.properties.name)
  expect(PROVINCES.map(({ map }) => map).sort()).toEqual([...names].sort())
  expect(names).toHaveLength(34)
})

it('finds a province by the name in an order and by the name on the map', () => {
  expect(province('内蒙古自治区')?.map).toBe('内蒙古')
  expect(province('广西')?.full).toBe('广西壮族自治区')
  expect(province('北京市')?.en).toBe('Beijing')
  expect(province('火星')).toBeUndefined()
})

it('gives every name to one province only', () => {
  for (const field of ['full', 'map', 'en'] as const) expect(new Set(PROVINCES.map((p) => p[field])).size).toBe(34)
})
