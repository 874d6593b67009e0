// Sales per minute: the line, minutes that late orders have changed, and the minute that is still open.
import type { OrderMinute } from '@/api/types'
import { formatCount, formatYuan, formatYuanShort } from '@/format/money'
import { chinaMinute, MINUTE_MS } from '@/format/time'
import type { Language, Translate } from '@/i18n'
import { fade, WALL } from '../palette'
import { baseOption, categoryAxis, downwards, tooltip, valueAxis, type ChartOption } from './base'

export function minuteOption(series: OrderMinute[], language: Language, t: Translate): ChartOption {
  const last = series.at(-1)
  const late = series.filter((minute) => minute.late > 0)
  return {
    ...baseOption,
    grid: { left: 8, right: 20, top: 16, bottom: 4, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    tooltip: {
      ...tooltip,
      trigger: 'axis',
      axisPointer: { lineStyle: { color: fade(WALL.cyan, 0.6) } },
      formatter: (points: { dataIndex: number }[]) => describe(series[points[0].dataIndex], t),
    },
    xAxis: {
      ...categoryAxis,
      boundaryGap: false,
      data: series.map((minute) => chinaMinute(minute.minute_ms)),
    },
    yAxis: valueAxis((fen) => formatYuanShort(Math.round(fen), language)),
    dataZoom: [{ type: 'inside', minValueSpan: 10 }],
    series: [
      {
        id: 'sales',
        type: 'line',
        data: series.map((minute) => minute.fen),
        smooth: 0.3,
        symbol: 'none',
        sampling: 'lttb',
        lineStyle: { width: 2.4, color: WALL.cyan, shadowColor: fade(WALL.cyan, 0.55), shadowBlur: 10, shadowOffsetY: 4 },
        areaStyle: { color: downwards(fade(WALL.cyan, 0.34), fade(WALL.blue, 0)) },
        animation: false,
      },
      {
        id: 'late',
        type: 'scatter',
        data: late.map((minute) => [position(series, minute), minute.fen]),
        symbol: 'diamond',
        symbolSize: 9,
        itemStyle: { color: WALL.amber, borderColor: '#2a1a02', borderWidth: 1 },
        animation: false,
        z: 4,
      },
      {
        id: 'open',
        type: 'effectScatter',
        data: last ? [[series.length - 1, last.fen]] : [],
        symbolSize: 8,
        rippleEffect: { scale: 3.2, brushType: 'stroke', number: 2 },
        itemStyle: { color: WALL.text },
        animation: false,
        silent: true,
        zlevel: 1,
      },
    ],
  }
}

/** The position of a minute on the axis: the series has no gaps, so it is a difference of times. */
function position(series: OrderMinute[], minute: OrderMinute): number {
  return (minute.minute_ms - series[0].minute_ms) / MINUTE_MS
}

function describe(minute: OrderMinute | undefined, t: Translate): string {
  if (!minute) return ''
  const lines = [
    `<b>${chinaMinute(minute.minute_ms)}</b>`,
    `${t('screen.amount')}: ¥${formatYuan(minute.fen)}`,
    `${t('screen.orders')}: ${formatCount(minute.orders)} · ${t('screen.pieces')}: ${formatCount(minute.quantity)}`,
  ]
  if (minute.late > 0) lines.push(`<span style="color:${WALL.amber}">◆ ${t('screen.lateInMinute', { n: minute.late })}</span>`)
  return lines.join('<br>')
}
