// Registers the map of China with echarts. The name `china` matters: for it echarts adds the South China Sea inset.
import { registerMap } from 'echarts/core'
import china from 'echarts-map-data/map/json/china.json'
import { province } from './provinces'

export interface ChinaMap {
  type: 'FeatureCollection'
  UTF8Encoding?: boolean
  features: { properties: { name: string; cp: [number, number] } }[]
}

export const CHINA = 'china'

const CENTRES = new Map(china.features.map(({ properties }) => [properties.name, properties.cp]))

registerMap(CHINA, china as unknown as Parameters<typeof registerMap>[1])

/** Longitude and latitude of a province's capital, by its full name. */
export function centreOf(fullName: string): [number, number] | undefined {
  const found = province(fullName)
  return found && CENTRES.get(found.map)
}
