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
  苹果: 'Apple',
  华为: 'Huawei',
  小米: 'Xiaomi',
  三星: 'Samsung',
  三只松鼠: 'Three Squirrels',
  良品铺子: 'Bestore',
  百草味: 'Be & Cheery',
  卫龙: 'Weilong',
  优衣库: 'Uniqlo',
  太平鸟: 'Peacebird',
  海澜之家: 'HLA',
  宜家: 'IKEA',
  林氏家居: 'Linsy',
  全友: 'QuanU',
  耐克: 'Nike',
  阿迪达斯: 'Adidas',
  安踏: 'Anta',
  李宁: 'Li-Ning',
  飞鹤: 'Feihe',
  贝亲: 'Pigeon',
  好孩子: 'Goodbaby',
  名创优品: 'Miniso',
  网易严选: 'Yanxuan',
  得力: 'Deli',
  古驰: 'Gucci',
  蔻驰: 'Coach',
}

export function shownName(name: string, language: Language): string {
  return language === 'en' ? (ENGLISH[name] ?? name) : name
}

export function provinceName(name: string, language: Language): string {
  const found = province(name)
  return (language === 'en' ? found?.en : found?.map) ?? name
}
