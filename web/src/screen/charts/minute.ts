// Sales per minute: the line, minutes that late orders have changed, and the minute that is still open.
import type { OrderMinute } from '@/screen/tables'
import { formatCount, formatYuan, formatYuanAxis } from '@/format/money'
import { CHINA_OFFSET_MS, chinaDay, chinaMinute, HOUR_MS } from '@/format/time'
import type { Language, Translate } from '@/i18n'
import { fade, WALL } from '../palette'
import { baseOption, categoryAxis, downwards, tooltip, valueAxis, type ChartOption } from './base'

/** More minutes than this are drawn with a thin line, or neighbours run into each other. */
const LONG = 480

/** The time axis puts its ticks at round hours of UTC, so times are moved to make these the round hours of UTC+8. */
const onAxis = ({ minute_ms, fen }: OrderMinute) => [minute_ms + CHINA_OFFSET_MS, fen]

function tickLabel(shifted: number): string {
  const ms = shifted - CHINA_OFFSET_MS
  const clock = chinaMinute(ms)
  return clock === '00:00' ? chinaDay(ms).slice(5) : clock
}

export function minuteOption(series: OrderMinute[], language: Language, t: Translate): ChartOption {
  const closed = series.slice(0, -1)
  const late = closed.filter((minute) => minute.late > 0)
  const long = closed.length > LONG
  return {
    ...baseOption,
    useUTC: true,
    grid: { left: 8, right: 20, top: 16, bottom: 4, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    tooltip: {
      ...tooltip,
      trigger: 'axis',
      axisPointer: { lineStyle: { color: fade(WALL.cyan, 0.6) } },
      formatter: (points: { seriesId: string; dataIndex: number }[]) =>
        describe(closed[points.find((point) => point.seriesId === 'sales')?.dataIndex ?? -1], t),
    },
    xAxis: {
      ...categoryAxis,
      type: 'time',
      splitLine: { show: false },
      axisLabel: { ...categoryAxis.axisLabel, formatter: tickLabel, hideOverlap: true },
    },
    yAxis: valueAxis((fen) => formatYuanAxis(fen, language)),
    dataZoom: [{ type: 'inside', minValueSpan: HOUR_MS / 6 }],
    series: [
      {
        id: 'sales',
        type: 'line',
        data: closed.map(onAxis),
        smooth: long ? 0 : 0.3,
        symbol: 'none',
        lineStyle: { width: long ? 1.3 : 2.4, color: WALL.cyan },
        areaStyle: { color: downwards(fade(WALL.cyan, 0.36), fade(WALL.blue, 0.02)) },
        animation: false,
      },
      {
        id: 'late',
        type: 'scatter',
        data: late.map(onAxis),
        symbol: 'diamond',
        symbolSize: long ? 9 : 12,
        itemStyle: { color: WALL.amber, borderColor: '#2a1a02', borderWidth: 1 },
        animation: false,
        z: 4,
      },
      {
        id: 'open',
        type: 'scatter',
        data: series.slice(-1).map(onAxis),
        symbolSize: 9,
        itemStyle: { color: WALL.text, borderColor: WALL.cyan, borderWidth: 3, shadowColor: WALL.cyan, shadowBlur: 14 },
        animation: false,
        silent: true,
      },
    ],
  }
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
