// Text too long to be shown whole.

/** The beginning of a text, at most so many characters, and how many are left out. */
export function cut(text: string, most: number): { shown: string; left: number } {
  return { shown: text.slice(0, most), left: Math.max(0, text.length - most) }
}
