// Orders speak Chinese; the English wall translates the names that come from closed lists and keeps the others as they are.
import { province } from '@/geo/provinces'
import type { Language } from '@/i18n'

const ENGLISH: Record<string, string> = {
  数码: 'Digital',
  美食: 'Food',
  时尚: 'Fashion',
  家居: 'Home',
  运动: 'Sports',
  母婴: 'Baby',
  大杂烩: 'Variety',
  包包: 'Bags',
  男: 'Men',
  女: 'Women',
}

export function shownName(name: string, language: Language): string {
  return language === 'en' ? (ENGLISH[name] ?? name) : name
}

export function provinceName(name: string, language: Language): string {
  const found = province(name)
  return (language === 'en' ? found?.en : found?.map) ?? name
}
