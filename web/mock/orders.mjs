// Development only: invents a day of orders and keeps the eight live tables of the order screen, as the order job would.

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const CHINA = 8 * HOUR

const BRANDS = {
  数码: [['苹果', 9], ['华为', 8], ['小米', 6], ['OPPO', 4], ['三星', 3]],
  美食: [['三只松鼠', 6], ['良品铺子', 5], ['百草味', 4]],
  时尚: [['优衣库', 6], ['海澜之家', 4], ['太平鸟', 3]],
  家居: [['宜家', 6], ['全友', 4], ['林氏', 3]],
  运动: [['李宁', 6], ['耐克', 5], ['安踏', 5], ['阿迪达斯', 4]],
  母婴: [['好孩子', 5], ['贝亲', 4], ['帮宝适', 3]],
  大杂烩: [['名创优品', 5], ['得力', 4], ['晨光', 3]],
  包包: [['LV', 5], ['古驰', 4], ['蔻驰', 4], ['普拉达', 3]],
}
const CATEGORIES = { 数码: [8, 40000, 500000], 包包: [5, 40000, 300000], 家居: [6, 20000, 160000], 运动: [9, 10000, 90000], 时尚: [10, 8000, 60000], 母婴: [7, 6000, 50000], 美食: [14, 3000, 20000], 大杂烩: [6, 4000, 30000] }
const PROVINCES = { 广东省: 12, 江苏省: 9.5, 浙江省: 9, 山东省: 8, 上海市: 7, 北京市: 7, 四川省: 6, 河南省: 6, 湖北省: 5, 福建省: 5, 湖南省: 4.6, 河北省: 4.4, 安徽省: 4, 重庆市: 3.4, 陕西省: 3.2, 辽宁省: 3, 江西省: 2.8, 广西壮族自治区: 2.6, 天津市: 2.5, 云南省: 2.4, 山西省: 2.2, 黑龙江省: 2, 贵州省: 1.9, 吉林省: 1.7, 内蒙古自治区: 1.6, 新疆维吾尔自治区: 1.4, 甘肃省: 1.2, 海南省: 1, 台湾省: 0.9, 香港特别行政区: 0.9, 宁夏回族自治区: 0.7, 青海省: 0.5, 澳门特别行政区: 0.4, 西藏自治区: 0.4 }
const SURNAMES = [...'赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张']
const NUMERALS = [...'一二三四五六七八九十']
/** Orders a second by hour of the day at UTC+8. */
const DAY_CURVE = [2, 1.4, 1.1, 1, 1, 1.2, 1.8, 2.4, 3, 3.6, 4, 4.2, 4.4, 4, 3.8, 3.8, 4, 4.4, 5, 5.8, 6.4, 6, 4.6, 3]

let seed = 20261120
/** Mulberry32: the same fake day on each start. */
function random() {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const between = (low, high) => low + Math.floor(random() * (high - low + 1))
function weighted(entries) {
  let at = random() * entries.reduce((sum, [, weight]) => sum + weight, 0)
  for (const [name, weight] of entries) if ((at -= weight) < 0) return name
  return entries[0][0]
}

/** How many orders come in a span, with the unevenness of real life. */
function count(at, spanMs) {
  const hour = (at + CHINA) / HOUR
  const [before, after] = [DAY_CURVE[Math.floor(hour) % 24], DAY_CURVE[(Math.floor(hour) + 1) % 24]]
  const expected = ((before + (after - before) * (hour % 1)) * (0.4 + 1.2 * random()) * spanMs) / 1000
  return Math.floor(expected + random())
}

export const dayOf = (ms) => new Date(ms + CHINA).toISOString().slice(0, 10)
const timeKey = (ms) => String(ms).padStart(13, '0')
const categoryWeights = Object.entries(CATEGORIES).map(([name, [weight]]) => [name, weight])
const provinceWeights = Object.entries(PROVINCES)

export function startOrders(tables, empty) {
  const users = new Map()

  function total(day, ms) {
    const known = tables.get('orders.total', day)
    if (known) return { ...known }
    users.clear()
    return { day, fen: 0, quantity: 0, orders: 0, unpaid_fen: 0, unpaid_orders: 0, cancelled_fen: 0, cancelled_orders: 0, duplicates: 0, late: 0, dead_letters: 0, yesterday_fen: 0, event_time_ms: ms, watermark_ms: ms, computed_ms: ms }
  }
  function add(table, key, fields, fen, quantity, orders = 1) {
    const old = tables.get(table, key) ?? { ...fields, fen: 0, quantity: 0, ...(orders ? { orders: 0 } : {}) }
    const row = { ...old, fen: old.fen + fen, quantity: old.quantity + quantity }
    if (orders) row.orders = old.orders + orders
    tables.put(table, key, row)
  }

  function order(at, now) {
    const day = dayOf(at)
    const sum = total(day, at)
    const luck = random()
    if (luck < 0.004) sum.duplicates += 1
    else if (luck < 0.0044) sum.dead_letters += 1
    else {
      const category = weighted(categoryWeights)
      const [, low, high] = CATEGORIES[category]
      const quantity = between(1, 4)
      const fen = between(low, high) * quantity
      const status = random()
      if (status < 0.13) {
        sum.unpaid_fen += fen
        sum.unpaid_orders += 1
      } else if (status < 0.17) {
        sum.cancelled_fen += fen
        sum.cancelled_orders += 1
      } else {
        const late = random() < 0.00008
        const brand = weighted(BRANDS[category])
        const user = SURNAMES[between(0, SURNAMES.length - 1)] + NUMERALS[between(0, 9)]
        const gender = category === '母婴' || category === '包包' || category === '美食' ? (random() < 0.34 ? '男' : '女') : random() < 0.53 ? '男' : '女'
        const minute = Math.floor(at / MINUTE) * MINUTE - (late ? between(2, 20) * MINUTE : 0)
        sum.fen += fen
        sum.quantity += quantity
        sum.orders += 1
        sum.late += late ? 1 : 0
        add('orders.minute', timeKey(minute), { minute_ms: minute, late: 0 }, fen, quantity)
        if (late) tables.put('orders.minute', timeKey(minute), { ...tables.get('orders.minute', timeKey(minute)), late: tables.get('orders.minute', timeKey(minute)).late + 1 })
        add('orders.category', `${day}/${category}`, { day, category }, fen, quantity)
        add('orders.brand', `${day}/${category}/${brand}`, { day, category, brand }, fen, quantity)
        add('orders.gender', `${day}/${gender}`, { day, gender }, fen, quantity)
        const window = Math.floor(minute / (10 * MINUTE)) * 10 * MINUTE
        add('orders.gender_10min', `${timeKey(window)}/${gender}`, { window_ms: window, gender }, fen, quantity, 0)
        const province = weighted(provinceWeights)
        add('orders.province', `${day}/${province}`, { day, province }, fen, quantity)
        const spent = users.get(user) ?? { user_id: `u${users.size + 1000}`, user, fen: 0, orders: 0 }
        users.set(user, { ...spent, fen: spent.fen + fen, orders: spent.orders + 1 })
      }
    }
    sum.event_time_ms = at
    sum.watermark_ms = at - 3000
    sum.computed_ms = now
    tables.put('orders.total', day, sum)
  }

  function ranking(day) {
    const best = [...users.values()].sort((a, b) => b.fen - a.fen).slice(0, 10)
    best.forEach((user, at) => tables.put('orders.user', `${day}/${String(at + 1).padStart(2, '0')}`, { day, rank: at + 1, ...user }))
  }

  /** Yesterday up to the same minute, learnt from the minute table. */
  function compare(now) {
    const day = dayOf(now)
    const start = Date.parse(`${day}T00:00:00+08:00`) - DAY
    let sum = 0
    for (const [key, row] of tables.rows('orders.minute')) if (Number(key) >= start && Number(key) <= now - DAY) sum += row.fen
    const row = tables.get('orders.total', day)
    if (row) tables.put('orders.total', day, { ...row, yesterday_fen: sum > 0 ? sum : null })
  }

  if (empty) return
  const now = Date.now()
  for (let at = now - 36 * HOUR; at < now; at += 5000) {
    for (let n = count(at, 5000); n > 0; n--) order(at + between(0, 4999), at + 5350)
  }
  ranking(dayOf(now))
  compare(now)
  setInterval(() => {
    const at = Date.now()
    for (let n = count(at, 250); n > 0; n--) order(at - between(250, 600), at)
    ranking(dayOf(at))
  }, 250).unref()
  setInterval(() => compare(Date.now()), 10_000).unref()
}

/** One order as it stands in the topic. */
export function orderEvent(at, number) {
  const category = weighted(categoryWeights)
  const fen = between(2000, 90000)
  const num = between(1, 9)
  return {
    orderId: `${new Date(at + CHINA).toISOString().replace(/\D/g, '').slice(0, 17)}${String(number % 10000).padStart(4, '0')}`,
    userId: `u${1000 + (number % 240)}`,
    userName: SURNAMES[number % SURNAMES.length] + NUMERALS[number % 10],
    gender: number % 2 ? '男' : '女',
    goods: `${category}商品${between(1, 40)}`,
    goodsType: category,
    brand: weighted(BRANDS[category]),
    orderTime: new Date(at + CHINA).toISOString().slice(0, 19).replace('T', ' '),
    orderTimeSeries: at,
    price: (fen / 100).toFixed(2),
    num,
    totalPrice: ((fen * num) / 100).toFixed(2),
    status: ['已支付', '已支付', '配送中', '已完成', '待支付'][number % 5],
    address: weighted(provinceWeights),
    phone: 13000000000 + between(0, 999999999),
  }
}
