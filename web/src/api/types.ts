// Short names for what the page uses of the HTTP interface. The shapes stand in schema.ts, which `npm run types` makes
// from the server's own description; rows of live tables belong to the job that writes them (src/screen/tables.ts).
import type { components, paths } from './schema'

type Shapes = components['schemas']

export type JobState = Shapes['JobState']
export type JobSummary = Shapes['JobSummary']
export type JobDetail = Shapes['JobDetail']
export type JobException = Shapes['JobException']
export type JobsEvent = Shapes['JobsEvent']
export type Overview = Shapes['Overview']
export type Vertex = Shapes['Vertex']
export type Edge = Shapes['Edge']
export type Checkpoints = Shapes['Checkpoints']
export type CheckpointDetail = Shapes['CheckpointDetail']
export type LiveTable = Shapes['TableInfo']
export type LiveEvent = Shapes['LiveEvent']
export type LiveChange = Shapes['LiveChange']
export type Topic = Shapes['TopicView']
export type TopicRecord = Shapes['RecordView']
export type Refusal = Shapes['Errors']

type Answered<Call> = Call extends { responses: { 200: { content: { 'application/json': infer Body } } } } ? Body : never

/** What `GET <path>` answers. */
export type Answer<Path extends keyof paths> = Answered<paths[Path]['get']>

/** What `POST <path>` answers. */
export type Posted<Path extends keyof paths> = Answered<paths[Path]['post']>
