// What a reader can do with a job: each after a question to the reader, each with its outcome told.
import { ElMessage, ElMessageBox } from 'element-plus'
import { ref } from 'vue'
import { api, ApiError, forgetAdminToken, setAdminToken } from '@/api/client'
import type { JobState } from '@/api/types'
import { useI18n } from '@/i18n'

export type JobAction = 'cancel' | 'stop' | 'savepoint' | 'restart' | 'remove'

const ACTIVE: readonly JobState[] = ['CREATED', 'RUNNING', 'RESTARTING']

/** Actions that cannot be taken back. */
export const DESTRUCTIVE: readonly JobAction[] = ['cancel', 'remove']

/** What can be asked of a job in this state. */
export function actionsFor(state: JobState): JobAction[] {
  if (state === 'RUNNING') return ['savepoint', 'stop', 'cancel']
  return ACTIVE.includes(state) ? ['cancel'] : ['restart', 'remove']
}

export function useJobActions() {
  const { t } = useI18n()
  const busy = ref<string | null>(null)

  async function run(action: JobAction, job: { id: string; name: string }): Promise<void> {
    const title = t(`action.${action}.title`)
    const destructive = DESTRUCTIVE.includes(action)
    const answer = await ElMessageBox.confirm(t(`action.${action}.ask`, { name: job.name }), title, {
      type: destructive ? 'warning' : 'info',
      confirmButtonText: title,
      confirmButtonClass: destructive ? 'el-button--danger' : '',
      cancelButtonText: t('action.back'),
    }).catch(() => 'no')
    if (answer !== 'confirm') return
    busy.value = job.id
    try {
      const result = await withToken<object | null | void>(() => api[action](job.id))
      const savepoint = result && typeof result === 'object' && 'savepoint' in result ? String(result.savepoint) : ''
      ElMessage.success(savepoint ? t('action.savedTo', { path: savepoint }) : t('action.done', { action: title }))
    } catch (error) {
      ElMessage.error(error instanceof Error ? error.message : String(error))
    } finally {
      busy.value = null
    }
  }

  /** A server with an administrator token answers 401: ask for it until it is right or the reader gives up. */
  async function withToken<T>(call: () => Promise<T>): Promise<T> {
    let question = t('action.token.ask')
    for (;;) {
      try {
        return await call()
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 401) throw error
        forgetAdminToken()
        const answer = await ElMessageBox.prompt(question, t('action.token.title'), {
          inputType: 'password',
          confirmButtonText: t('action.token.go'),
          cancelButtonText: t('action.back'),
        }).catch(() => null)
        if (answer === null) throw new Error(t('action.token.none'))
        setAdminToken(answer.value)
        question = t('action.token.wrong')
      }
    }
  }

  return { busy, run }
}
