// Development only: live tables in memory with the snapshot, delta and resume behaviour of the real server.

export function createTables() {
  const tables = new Map()
  let version = 0

  function table(name) {
    if (!tables.has(name)) tables.set(name, { rows: new Map(), changed: new Map(), version: 0, updated_ms: Date.now() })
    return tables.get(name)
  }
  return {
    version: () => version,
    names: () => [...tables.keys()].sort(),
    has: (name) => tables.has(name),
    info: (name) => ({ name, rows: table(name).rows.size, version: table(name).version, updated_ms: table(name).updated_ms }),
    rows: (name) => table(name).rows,
    get: (name, key) => table(name).rows.get(key),
    put(name, key, value) {
      const one = table(name)
      version += 1
      one.version = version
      one.updated_ms = Date.now()
      one.changed.set(key, version)
      one.rows.set(key, value)
    },
    /** Rows changed after `since`, or null when there are none. */
    delta(name, since) {
      const one = table(name)
      if (one.version <= since) return null
      const rows = []
      for (const [key, at] of one.changed) if (at > since) rows.push({ key, value: one.rows.get(key) ?? null })
      return { table: name, version: one.version, rows }
    },
    snapshot(name) {
      const one = table(name)
      return { table: name, version: one.version, rows: [...one.rows].map(([key, value]) => ({ key, value })) }
    },
  }
}
