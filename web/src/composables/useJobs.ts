// All jobs and the slot totals, pushed once a second; keeps the last minutes of throughput for the sparklines.
import { ref, shallowRef } from 'vue'
import { api, serverSaid } from '@/api/client'
import type { JobsEvent, JobSummary, Overview } from '@/api/types'
import { useEventStream } from './useEventStream'

const HISTORY = 60

export function useJobs() {
  const jobs = shallowRef<JobSummary[]>([])
  const overview = shallowRef<Overview | null>(null)
  const rates = shallowRef(new Map<string, number[]>())
  const failure = ref<string | null>(null)

  function receive(event: JobsEvent) {
    jobs.value = event.jobs
    overview.value = event.overview
    failure.value = null
    rates.value = new Map(
      event.jobs.map((job) => [job.id, [...(rates.value.get(job.id) ?? []), job.records_in_per_s].slice(-HISTORY)]),
    )
  }

  const status = useEventStream('/api/events', {
    types: ['jobs'],
    onEvent: (_, data) => receive(data as JobsEvent),
    poll: async () => {
      const [{ jobs }, overview] = await Promise.all([api.jobs(), api.overview()])
      return () => receive({ jobs, overview })
    },
    onPollError: (error) => (failure.value = serverSaid(error)),
  })
  return { jobs, overview, rates, status, failure }
}
