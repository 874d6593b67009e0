// The language of the UI: `?lang=` in the address wins, then the reader's last choice, then the browser's.
import { computed, ref, type ComputedRef, type Ref } from 'vue'
import { en } from './en'
import { zh } from './zh'

export type Language = 'zh' | 'en'
export type Key = keyof typeof zh
export type Translate = (key: Key, values?: Record<string, string | number>) => string

const MESSAGES: Record<Language, Record<Key, string>> = { zh, en }
const STORED = 'tidemill.language'

function initial(): Language {
  const asked = new URLSearchParams(location.search).get('lang')
  if (asked === 'zh' || asked === 'en') return asked
  const stored = localStorage.getItem(STORED)
  if (stored === 'zh' || stored === 'en') return stored
  return navigator.language.startsWith('zh') ? 'zh' : 'en'
}

const language = ref<Language>()

export function translate(to: Language, key: Key, values: Record<string, string | number> = {}): string {
  return MESSAGES[to][key].replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole))
}

export function useI18n(): {
  t: Translate
  language: ComputedRef<Language>
  setLanguage: (to: Language) => void
} {
  language.value ??= initial()
  const current = language as Ref<Language>
  return {
    t: (key, values) => translate(current.value, key, values),
    language: computed(() => current.value),
    setLanguage(to) {
      current.value = to
      localStorage.setItem(STORED, to)
    },
  }
}
