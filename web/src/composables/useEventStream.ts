// An EventStream tied to the life of a component, and to an address that may change.
import { onScopeDispose, ref, toValue, watch, type MaybeRefOrGetter, type Ref } from 'vue'
import { EventStream, type StreamOptions, type StreamStatus } from '@/api/eventStream'

type Options = Omit<StreamOptions, 'url' | 'onStatus'>

export function useEventStream(url: MaybeRefOrGetter<string>, options: Options): Ref<StreamStatus> {
  const status = ref<StreamStatus>('connecting')
  let stream: EventStream | null = null
  watch(
    () => toValue(url),
    (address) => {
      stream?.close()
      status.value = 'connecting'
      stream = new EventStream({ ...options, url: address, onStatus: (now) => (status.value = now) })
    },
    { immediate: true },
  )
  onScopeDispose(() => stream?.close())
  return status
}
