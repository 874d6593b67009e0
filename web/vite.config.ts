// Build, dev server and unit tests. In development the API comes from a running `tidemill serve` or from `npm run mock`.
import { fileURLToPath } from 'node:url'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

const api = process.env.TIDEMILL_URL ?? 'http://127.0.0.1:8081'

export default defineConfig({
  plugins: [vue()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  server: { proxy: { '/api': api, '/overview': api } },
  build: {
    target: 'es2022',
    chunkSizeWarningLimit: 700,
    // The chart library and the map change less often than the screen: their own files stay in the browser's cache.
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            { name: 'china', test: /echarts-map-data/ },
            { name: 'echarts', test: /node_modules\/(echarts|zrender)\// },
          ],
        },
      },
    },
  },
  test: { include: ['src/**/*.spec.ts'], environment: 'node' },
})
