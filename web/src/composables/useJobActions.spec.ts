import { expect, it } from 'vitest'
import { actionsFor } from './useJobActions'

it('offers what the state allows', () => {
  expect(actionsFor('RUNNING')).toEqual(['savepoint', 'stop', 'cancel'])
  expect(actionsFor('CREATED')).toEqual(['cancel'])
  expect(actionsFor('RESTARTING')).toEqual(['cancel'])
  for (const ended of ['FINISHED', 'CANCELED', 'SUSPENDED', 'FAILED'] as const) expect(actionsFor(ended)).toEqual(['restart', 'remove'])
})
