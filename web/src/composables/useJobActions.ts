// What a reader can do with a job: each after a question to the reader, each with its outcome told.
import { ElMessage, ElMessageBox } from 'element-plus'
import { ref } from 'vue'
import { api } from '@/api/client'
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
    const label = t(`action.${action}`)
    const answer = await ElMessageBox.confirm(t(`action.${action}.ask`, { name: job.name }), label, {
      type: DESTRUCTIVE.includes(action) ? 'warning' : 'info',
      confirmButtonText: label,
      cancelButtonText: t('action.back'),
    }).catch(() => 'no')
    if (answer !== 'confirm') return
    busy.value = job.id
    try {
      const result = await api[action](job.id)
      const savepoint = result && typeof result === 'object' && 'savepoint' in result ? String(result.savepoint) : ''
      ElMessage.success(savepoint ? t('action.savedTo', { path: savepoint }) : t('action.done', { action: label }))
    } catch (error) {
      ElMessage.error(error instanceof Error ? error.message : String(error))
    } finally {
      busy.value = null
    }
  }
  return { busy, run }
}
