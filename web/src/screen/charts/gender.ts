// Purchasing power by gender as a ring, and sales per 10 minutes as a pair of bars for each window.
import type { GenderSales } from '@/screen/tables'
import { formatCount, formatPermille, formatYuan, formatYuanAxis, permille } from '@/format/money'
import { CHINA_OFFSET_MS, chinaMinute, HOUR_MS } from '@/format/time'
import type { Language, Translate } from '@/i18n'
import { shownName } from '../names'
import { fade, WALL } from '../palette'
import { FEMALE, MALE, TEN_MINUTES_MS, type GenderBars } from '../rows'
import { baseOption, categoryAxis, downwards, escapeHtml, legend, tooltip, valueAxis, type ChartOption } from './base'

const COLOURS: Record<string, string> = { [MALE]: WALL.blue, [FEMALE]: WALL.rose }

export const genderColour = (gender: string) => COLOURS[gender] ?? WALL.violet

export function genderRingOption(genders: GenderSales[], language: Language, t: Translate): ChartOption {
  const whole = genders.reduce((sum, gender) => sum + gender.fen, 0)
  return {
    ...baseOption,
    tooltip: {
      ...tooltip,
      formatter: ({ dataIndex }: { dataIndex: number }) => {
        const gender = genders[dataIndex]
        return [
          `<b>${escapeHtml(shownName(gender.gender, language))}</b> ${formatPermille(permille(gender.fen, whole) ?? 0)}`,
          `${t('screen.amount')}: ¥${formatYuan(gender.fen)}`,
          `${t('screen.pieces')}: ${formatCount(gender.quantity)} · ${t('screen.orders')}: ${formatCount(gender.orders)}`,
        ].join('<br>')
      },
    },
    series: [
      {
        id: 'ring',
        type: 'pie',
        radius: ['62%', '88%'],
        center: ['50%', '50%'],
        padAngle: 3,
        startAngle: 110,
        itemStyle: { borderRadius: 8 },
        label: { show: false },
        emphasis: { scaleSize: 6 },
        data: genders.map((gender) => ({
          name: shownName(gender.gender, language),
          value: gender.fen,
          itemStyle: {
            color: downwards(genderColour(gender.gender), fade(genderColour(gender.gender), 0.55)),
            shadowColor: fade(genderColour(gender.gender), 0.45),
            shadowBlur: 18,
          },
        })),
      },
      {
        id: 'rim',
        type: 'pie',
        radius: ['54%', '56%'],
        silent: true,
        label: { show: false },
        data: [{ value: 1, itemStyle: { color: WALL.line } }],
        animation: false,
      },
    ],
  }
}

/** Labels stand at round times, the fewer the longer the window. */
function isRound(windowMs: number, windows: number): boolean {
  const step = windows > 72 ? 3 * HOUR_MS : windows > 18 ? HOUR_MS : windows > 9 ? HOUR_MS / 2 : TEN_MINUTES_MS
  return (windowMs + CHINA_OFFSET_MS) % step === 0
}

export function genderBarsOption(bars: GenderBars, language: Language): ChartOption {
  const series = (gender: string, data: number[]) => ({
    id: gender,
    name: shownName(gender, language),
    type: 'bar',
    data,
    barMaxWidth: 24,
    barGap: '15%',
    itemStyle: {
      borderRadius: [3, 3, 0, 0],
      color: downwards(genderColour(gender), fade(genderColour(gender), 0.25)),
    },
  })
  return {
    ...baseOption,
    grid: { left: 4, right: 6, top: 32, bottom: 2, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    legend: { ...legend, data: [MALE, FEMALE].map((gender) => ({ name: shownName(gender, language), itemStyle: { color: genderColour(gender) } })) },
    tooltip: {
      ...tooltip,
      trigger: 'axis',
      axisPointer: { type: 'shadow', shadowStyle: { color: fade(WALL.blue, 0.12) } },
      formatter: (points: { dataIndex: number }[]) => {
        const at = points[0].dataIndex
        return [
          `<b>${chinaMinute(bars.windows[at])} – ${chinaMinute(bars.windows[at] + TEN_MINUTES_MS)}</b>`,
          `${shownName(MALE, language)}: ¥${formatYuan(bars.male[at])}`,
          `${shownName(FEMALE, language)}: ¥${formatYuan(bars.female[at])}`,
        ].join('<br>')
      },
    },
    xAxis: {
      ...categoryAxis,
      data: bars.windows.map(chinaMinute),
      axisLabel: { ...categoryAxis.axisLabel, interval: (at: number) => isRound(bars.windows[at], bars.windows.length) },
    },
    yAxis: valueAxis((fen) => formatYuanAxis(fen, language)),
    series: [series(MALE, bars.male), series(FEMALE, bars.female)],
  }
}
