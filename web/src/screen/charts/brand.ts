// Brand power: bars for the amount, a line for the pieces.
import type { BrandSales } from '@/screen/tables'
import { formatCount, formatCountAxis, formatYuan, formatYuanAxis } from '@/format/money'
import type { Language, Translate } from '@/i18n'
import { shownName } from '../names'
import { fade, WALL } from '../palette'
import { baseOption, categoryAxis, downwards, escapeHtml, legend, tooltip, valueAxis, type ChartOption } from './base'

/** Names of four or more characters, or of two words, stand on two lines, so no label is turned or dropped. */
function wrapped(name: string): string {
  const cjk = /[\u4e00-\u9fff]/.test(name)
  return cjk && name.length > 3 ? `${name.slice(0, Math.ceil(name.length / 2))}\n${name.slice(Math.ceil(name.length / 2))}` : name.replace(' ', '\n')
}

export function brandOption(
  brands: BrandSales[],
  chosen: string | null,
  language: Language,
  t: Translate,
): ChartOption {
  const bar = (brand: BrandSales) => ({
    value: brand.fen,
    name: brand.brand,
    itemStyle:
      brand.brand === chosen
        ? { color: downwards(WALL.amber, fade(WALL.amber, 0.2)) }
        : { color: downwards(WALL.blue, fade(WALL.violet, 0.18)) },
  })
  return {
    ...baseOption,
    grid: { left: 4, right: 4, top: 32, bottom: 2, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    legend: { ...legend, data: [t('screen.amount'), t('screen.pieces')] },
    tooltip: {
      ...tooltip,
      trigger: 'axis',
      axisPointer: { type: 'shadow', shadowStyle: { color: fade(WALL.blue, 0.12) } },
      formatter: (points: { dataIndex: number }[]) => describe(brands[points[0].dataIndex], language, t),
    },
    xAxis: {
      ...categoryAxis,
      data: brands.map((brand) => brand.brand),
      axisLabel: { ...categoryAxis.axisLabel, interval: 0, color: WALL.text, formatter: (name: string) => wrapped(shownName(name, language)), lineHeight: 15 },
    },
    yAxis: [
      valueAxis((fen) => formatYuanAxis(fen, language)),
      { ...valueAxis((count) => formatCountAxis(count, language)), splitLine: { show: false } },
    ],
    series: [
      {
        id: 'amount',
        name: t('screen.amount'),
        type: 'bar',
        data: brands.map(bar),
        barMaxWidth: 26,
        itemStyle: { borderRadius: [5, 5, 0, 0], color: WALL.blue },
        cursor: 'pointer',
      },
      {
        id: 'pieces',
        name: t('screen.pieces'),
        type: 'line',
        yAxisIndex: 1,
        data: brands.map((brand) => brand.quantity),
        smooth: 0.35,
        symbol: 'circle',
        symbolSize: 7,
        lineStyle: { width: 2.4, color: WALL.mint, shadowColor: fade(WALL.mint, 0.5), shadowBlur: 8 },
        itemStyle: { color: '#06122b', borderColor: WALL.mint, borderWidth: 2 },
      },
    ],
  }
}

function describe(brand: BrandSales | undefined, language: Language, t: Translate): string {
  if (!brand) return ''
  return [
    `<b>${escapeHtml(shownName(brand.brand, language))}</b>`,
    `${t('screen.amount')}: ¥${formatYuan(brand.fen)}`,
    `${t('screen.pieces')}: ${formatCount(brand.quantity)} · ${t('screen.orders')}: ${formatCount(brand.orders)}`,
  ].join('<br>')
}
