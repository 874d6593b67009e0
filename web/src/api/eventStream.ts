// One server-sent event stream that never gives up: the browser reconnects by itself after a network error (and sends
// Last-Event-ID), we open a new one when it gave up or has gone silent, and poll by REST in between.

export type StreamStatus = 'connecting' | 'live' | 'reconnecting'

export interface StreamOptions {
  url: string
  types: readonly string[]
  onEvent: (type: string, data: unknown) => void
  onStatus: (status: StreamStatus) => void
  /**
   * Fetches the same facts by REST and returns how to apply them. Applying is a second step because an answer that
   * arrives after the stream is back is older than the stream and must be thrown away.
   */
  poll?: () => Promise<() => void>
  onPollError?: (error: unknown) => void
  open?: (url: string) => EventSource
}

/** The server sends something at least each 5 s; this long without a word means the connection is dead. */
export const SILENCE_LIMIT_MS = 20_000
export const POLL_MS = 2_000
const REOPEN_MIN_MS = 1_000
const REOPEN_MAX_MS = 10_000

const CLOSED = 2

export class EventStream {
  private source: EventSource | null = null
  private status: StreamStatus = 'connecting'
  private reopenAfter = REOPEN_MIN_MS
  private silence: ReturnType<typeof setTimeout> | undefined
  private reopening: ReturnType<typeof setTimeout> | undefined
  private polling: ReturnType<typeof setTimeout> | undefined
  private ended = false

  constructor(private readonly options: StreamOptions) {
    this.open()
  }

  close(): void {
    this.ended = true
    this.stopPolling()
    clearTimeout(this.reopening)
    this.closeSource()
  }

  private open(): void {
    clearTimeout(this.reopening)
    this.closeSource()
    const source = this.options.open?.(this.options.url) ?? new EventSource(this.options.url)
    this.source = source
    source.onopen = () => this.alive()
    source.onerror = () => this.lost(source)
    for (const type of this.options.types) {
      source.addEventListener(type, (event) => {
        this.alive()
        this.options.onEvent(type, JSON.parse((event as MessageEvent<string>).data))
      })
    }
    source.addEventListener('heartbeat', () => this.alive())
    this.watchSilence()
  }

  private closeSource(): void {
    clearTimeout(this.silence)
    if (this.source) this.source.onerror = null
    this.source?.close()
    this.source = null
  }

  private alive(): void {
    this.reopenAfter = REOPEN_MIN_MS
    this.watchSilence()
    this.stopPolling()
    this.setStatus('live')
  }

  private lost(source: EventSource): void {
    this.setStatus('reconnecting')
    this.startPolling()
    if (source.readyState === CLOSED) this.reopenLater()
  }

  private watchSilence(): void {
    clearTimeout(this.silence)
    this.silence = setTimeout(() => {
      this.setStatus('reconnecting')
      this.startPolling()
      this.open()
    }, SILENCE_LIMIT_MS)
  }

  private reopenLater(): void {
    clearTimeout(this.reopening)
    this.reopening = setTimeout(() => this.open(), this.reopenAfter)
    this.reopenAfter = Math.min(this.reopenAfter * 2, REOPEN_MAX_MS)
  }

  private startPolling(): void {
    if (this.polling === undefined && this.options.poll) void this.pollOnce()
  }

  private stopPolling(): void {
    clearTimeout(this.polling)
    this.polling = undefined
  }

  private async pollOnce(): Promise<void> {
    const ticket = setTimeout(() => void this.pollOnce(), POLL_MS)
    this.polling = ticket
    try {
      const apply = await this.options.poll?.()
      if (!this.ended && this.status !== 'live') apply?.()
    } catch (error) {
      if (!this.ended && this.status !== 'live') this.options.onPollError?.(error)
    }
  }

  private setStatus(status: StreamStatus): void {
    if (this.status === status) return
    this.status = status
    this.options.onStatus(status)
  }
}
