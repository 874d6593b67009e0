// A REST answer that is fetched at once and again on an interval: for pages whose data has no stream of its own.
import { onScopeDispose, ref, shallowRef, type Ref, type ShallowRef } from 'vue'

export interface Fetched<T> {
  data: ShallowRef<T | null>
  failure: Ref<string | null>
  refresh: () => Promise<void>
}

export function useFetched<T>(load: () => Promise<T>, everyMs: number): Fetched<T> {
  const data = shallowRef<T | null>(null)
  const failure = ref<string | null>(null)
  let newest = 0

  async function refresh() {
    newest += 1
    const mine = newest
    try {
      const answer = await load()
      if (mine !== newest) return
      data.value = answer
      failure.value = null
    } catch (error) {
      if (mine === newest) failure.value = error instanceof Error ? error.message : String(error)
    }
  }
  void refresh()
  const timer = setInterval(() => void refresh(), everyMs)
  onScopeDispose(() => clearInterval(timer))
  return { data, failure, refresh }
}
