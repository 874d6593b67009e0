// Light or dark for the app pages: the reader's last choice, else the system's. The wall does not ask, it is always dark.
import { ref, watch } from 'vue'

const STORED = 'tidemill.theme'
const dark = ref(initial())

function initial(): boolean {
  const stored = localStorage.getItem(STORED)
  return stored === null ? matchMedia('(prefers-color-scheme: dark)').matches : stored === 'dark'
}

watch(dark, (on) => document.documentElement.classList.toggle('dark', on), { immediate: true })

export function useTheme() {
  return {
    dark,
    toggle() {
      dark.value = !dark.value
      localStorage.setItem(STORED, dark.value ? 'dark' : 'light')
    },
  }
}
