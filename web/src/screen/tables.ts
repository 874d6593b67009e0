// Rows of the order screen's live tables, as the job writes them: docs/reference/order-screen.md. The server passes them on as
// they are, so its description knows them as any JSON. All money is in integer fen.

interface Sales {
  day: string
  fen: number
  quantity: number
  orders: number
}

export interface OrderTotal extends Sales {
  unpaid_fen: number
  unpaid_orders: number
  cancelled_fen: number
  cancelled_orders: number
  duplicates: number
  late: number
  dead_letters: number
  yesterday_fen: number | null
  event_time_ms: number | null
  watermark_ms: number | null
  computed_ms: number
}

export interface OrderMinute {
  minute_ms: number
  fen: number
  quantity: number
  orders: number
  late: number
}

export interface CategorySales extends Sales {
  category: string
}

export interface BrandSales extends CategorySales {
  brand: string
}

export interface UserRank {
  day: string
  rank: number
  user_id: string
  user: string
  fen: number
  orders: number
}

export interface GenderSales extends Sales {
  gender: string
}

export interface GenderWindow {
  window_ms: number
  gender: string
  fen: number
  quantity: number
}

export interface ProvinceSales extends Sales {
  province: string
}

export interface OrderTables {
  'orders.total': OrderTotal
  'orders.minute': OrderMinute
  'orders.category': CategorySales
  'orders.brand': BrandSales
  'orders.user': UserRank
  'orders.gender': GenderSales
  'orders.gender_10min': GenderWindow
  'orders.province': ProvinceSales
}
