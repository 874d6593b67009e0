// Sales by province: a map on a darker copy of itself for depth, with rings on the provinces that lead.
import type { ProvinceSales } from '@/screen/tables'
import { formatCount, formatPermille, formatYuan, formatYuanShort, permille } from '@/format/money'
import { CHINA, centreOf } from '@/geo/chinaMap'
import { province } from '@/geo/provinces'
import type { Language, Translate } from '@/i18n'
import { provinceName } from '../names'
import { fade, FONT, WALL } from '../palette'
import { baseOption, escapeHtml, tooltip, type ChartOption } from './base'

const LEADERS = 5
const PLACE = { map: CHINA, roam: false, layoutSize: '109%', silent: true }

export function provinceOption(sales: ProvinceSales[], whole: number, language: Language, t: Translate): ChartOption {
  const leaders = sales.slice(0, LEADERS).flatMap((row) => {
    const centre = centreOf(row.province)
    return centre ? [{ name: provinceName(row.province, language), value: centre }] : []
  })
  return {
    ...baseOption,
    tooltip: {
      ...tooltip,
      formatter: ({ name }: { name: string }) => {
        const row = sales.find((one) => province(one.province)?.map === name)
        const title = `<b>${escapeHtml(provinceName(name, language))}</b>`
        if (!row) return `${title}<br>${t('screen.noSales')}`
        return [
          `${title} ${formatPermille(permille(row.fen, whole) ?? 0)}`,
          `${t('screen.amount')}: ¥${formatYuan(row.fen)}`,
          `${t('screen.pieces')}: ${formatCount(row.quantity)} · ${t('screen.orders')}: ${formatCount(row.orders)}`,
        ].join('<br>')
      },
    },
    visualMap: {
      type: 'continuous',
      seriesIndex: 0,
      min: 0,
      max: Math.max(100, sales[0]?.fen ?? 0),
      left: 0,
      bottom: 4,
      itemWidth: 10,
      itemHeight: 96,
      calculable: false,
      formatter: (fen: number) => formatYuanShort(Math.round(fen), language),
      text: [formatYuanShort(sales[0]?.fen ?? 0, language), '0'],
      textStyle: { color: WALL.muted, fontSize: 12, fontFamily: FONT },
      inRange: { color: ['#123062', '#1b4fa0', '#2f7fe6', '#35c3f5', '#7ff7e0'] },
    },
    geo: [
      {
        ...PLACE,
        layoutCenter: ['50%', '51.4%'],
        itemStyle: { areaColor: '#0a2a63', borderColor: fade(WALL.cyan, 0.35), shadowColor: fade(WALL.cyan, 0.5), shadowBlur: 24 },
      },
      {
        ...PLACE,
        silent: false,
        layoutCenter: ['50%', '49.5%'],
        label: { show: false },
        itemStyle: { areaColor: '#123062', borderColor: fade(WALL.cyan, 0.55), borderWidth: 0.8 },
        emphasis: {
          label: { show: false },
          itemStyle: { areaColor: WALL.amber, borderColor: WALL.text },
        },
      },
    ],
    series: [
      {
        id: 'sales',
        type: 'map',
        map: CHINA,
        geoIndex: 1,
        data: sales.map((row) => ({ name: province(row.province)?.map ?? row.province, value: row.fen })),
        animation: false,
      },
      {
        id: 'leaders',
        type: 'effectScatter',
        coordinateSystem: 'geo',
        geoIndex: 1,
        data: leaders,
        symbolSize: 7,
        rippleEffect: { scale: 4, brushType: 'stroke', number: 2, period: 5 },
        itemStyle: { color: WALL.text },
        label: {
          show: true,
          position: 'right',
          formatter: '{b}',
          color: WALL.text,
          fontSize: 13,
          fontFamily: FONT,
          textBorderColor: '#06122b',
          textBorderWidth: 3,
        },
        labelLayout: { moveOverlap: 'shiftY' },
        silent: true,
        animation: false,
        zlevel: 1,
      },
    ],
  }
}
