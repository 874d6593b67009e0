// The wall is laid out once on a fixed canvas and scaled as a whole, so it looks the same on every screen.
import { onMounted, onScopeDispose, ref, type InjectionKey, type Ref } from 'vue'

export const WALL_WIDTH = 1920
export const WALL_HEIGHT = 1080

/** How many device pixels a canvas pixel of the wall covers: charts draw at this ratio to stay crisp. */
export const PIXEL_RATIO: InjectionKey<Ref<number>> = Symbol('pixel ratio')

export interface Placement {
  scale: number
  left: number
  top: number
}

/** The largest scale at which the whole canvas is visible, and where it stands centred. */
export function placeWall(width: number, height: number): Placement {
  const scale = Math.min(width / WALL_WIDTH, height / WALL_HEIGHT)
  return {
    scale,
    left: Math.round((width - WALL_WIDTH * scale) / 2),
    top: Math.round((height - WALL_HEIGHT * scale) / 2),
  }
}

export function useWallScale(): { placement: Ref<Placement>; pixelRatio: Ref<number> } {
  const placement = ref(placeWall(innerWidth, innerHeight))
  const pixelRatio = ref(1)

  function measure() {
    placement.value = placeWall(innerWidth, innerHeight)
    pixelRatio.value = Math.max(1, placement.value.scale * devicePixelRatio)
  }
  measure()
  onMounted(() => addEventListener('resize', measure))
  onScopeDispose(() => removeEventListener('resize', measure))
  return { placement, pixelRatio }
}
