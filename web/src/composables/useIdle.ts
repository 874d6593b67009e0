// True while nobody has moved the pointer for a time: a wall without a visitor needs no cursor.
import { onScopeDispose, ref, type Ref } from 'vue'

export function useIdle(afterMs: number): Ref<boolean> {
  const idle = ref(false)
  let timer: ReturnType<typeof setTimeout>
  function moved() {
    clearTimeout(timer)
    idle.value = false
    timer = setTimeout(() => (idle.value = true), afterMs)
  }
  moved()
  addEventListener('pointermove', moved)
  onScopeDispose(() => {
    clearTimeout(timer)
    removeEventListener('pointermove', moved)
  })
  return idle
}
