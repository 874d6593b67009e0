// What all charts of the wall share: registration of the parts of echarts in use, and the style of axes and tooltips.
import { BarChart, EffectScatterChart, LineChart, MapChart, PieChart, ScatterChart } from 'echarts/charts'
import {
  DataZoomInsideComponent,
  GeoComponent,
  GridComponent,
  LegendComponent,
  TooltipComponent,
  VisualMapContinuousComponent,
} from 'echarts/components'
import { graphic, use, type EChartsCoreOption } from 'echarts/core'
import { LabelLayout } from 'echarts/features'
import { CanvasRenderer } from 'echarts/renderers'
import { FONT, WALL, fade } from '../palette'

use([
  BarChart,
  CanvasRenderer,
  DataZoomInsideComponent,
  EffectScatterChart,
  GeoComponent,
  GridComponent,
  LabelLayout,
  LegendComponent,
  LineChart,
  MapChart,
  PieChart,
  ScatterChart,
  TooltipComponent,
  VisualMapContinuousComponent,
])

export type ChartOption = EChartsCoreOption

export const baseOption = {
  textStyle: { fontFamily: FONT, color: WALL.muted },
  animationDuration: 700,
  animationDurationUpdate: 700,
  animationEasingUpdate: 'cubicOut',
} satisfies ChartOption

export const tooltip = {
  confine: true,
  backgroundColor: WALL.surface,
  borderColor: fade(WALL.cyan, 0.4),
  textStyle: { color: WALL.text, fontSize: 14, fontFamily: FONT },
}

export const categoryAxis = {
  type: 'category',
  axisLine: { lineStyle: { color: WALL.line } },
  axisTick: { show: false },
  axisLabel: { color: WALL.muted, fontSize: 12 },
}

export const valueAxis = (format: (value: number) => string) => ({
  type: 'value',
  splitNumber: 3,
  axisLabel: { color: WALL.muted, fontSize: 12, formatter: format },
  splitLine: { lineStyle: { color: WALL.line, type: 'dashed' } },
})

export const legend = {
  top: 0,
  right: 0,
  itemWidth: 14,
  itemHeight: 8,
  textStyle: { color: WALL.muted, fontSize: 12, fontFamily: FONT },
}

/** Top to bottom, from a colour to a fainter one. */
export function downwards(from: string, to: string) {
  return new graphic.LinearGradient(0, 0, 0, 1, [
    { offset: 0, color: from },
    { offset: 1, color: to },
  ])
}

/** Text that comes from events goes into HTML tooltips: escape it. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
}
