// Colours of the wall, for what is drawn on canvas. The same values are CSS variables in styles/wall.css.
export const WALL = {
  text: '#eaf3ff',
  muted: '#9fb6dc',
  line: 'rgba(120, 170, 255, 0.16)',
  cyan: '#3fe0ff',
  blue: '#4a8dff',
  violet: '#9a7bff',
  mint: '#3ff0b8',
  amber: '#ffb84d',
  rose: '#ff6f9f',
  surface: 'rgba(8, 22, 52, 0.94)',
}

export const FONT = '"Inter Variable", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", system-ui, sans-serif'

/** Ranked things take their colour from here by rank. */
export const RANKED = ['#ffb84d', '#ff8f6b', '#ff6f9f', '#c07bff', '#7f86ff', '#4a9dff', '#3fe0ff', '#3ff0b8']

/** `#rrggbb` at an opacity. */
export function fade(colour: string, opacity: number): string {
  return colour + Math.round(opacity * 255).toString(16).padStart(2, '0')
}
