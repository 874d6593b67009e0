// The map package ships plain JSON without types; echarts decodes it when it is registered.
declare module 'echarts-map-data/map/json/china.json' {
  import type { ChinaMap } from '@/geo/chinaMap'
  const map: ChinaMap
  export default map
}
