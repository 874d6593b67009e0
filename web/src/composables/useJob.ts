// One job in full detail, pushed once a second.
import { ref, shallowRef, watch, type Ref } from 'vue'
import { api, ApiError, serverSaid } from '@/api/client'
import type { JobDetail } from '@/api/types'
import { useEventStream } from './useEventStream'

export function useJob(id: Ref<string>) {
  const job = shallowRef<JobDetail | null>(null)
  const missing = ref(false)
  const failure = ref<string | null>(null)

  function receive(detail: JobDetail) {
    job.value = detail
    missing.value = false
    failure.value = null
  }
  watch(id, () => (job.value = null))

  const status = useEventStream(() => api.jobEvents(id.value), {
    types: ['job'],
    onEvent: (_, data) => receive(data as JobDetail),
    poll: async () => {
      const detail = await api.job(id.value)
      return () => receive(detail)
    },
    onPollError: (error) => {
      missing.value = error instanceof ApiError && error.status === 404
      failure.value = serverSaid(error)
    },
  })
  return { job, missing, failure, status }
}
