// All routes; each page is its own chunk. A `title` puts the page into the menu.
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'
import type { Key } from './i18n'

declare module 'vue-router' {
  interface RouteMeta {
    menu?: Key
    /** Shown without menu and frame, on the whole window. */
    wall?: boolean
  }
}

export const routes: RouteRecordRaw[] = [
  // The other addresses are those of Flink's monitoring paths: a browser that is led there gets the page.
  {
    path: '/',
    alias: ['/overview', '/jobs', '/jobs/overview'],
    component: () => import('./pages/OverviewPage.vue'),
    meta: { menu: 'menu.overview' },
  },
  {
    path: '/jobs/:id',
    alias: ['/jobs/:id/checkpoints', '/jobs/:id/exceptions'],
    component: () => import('./pages/JobPage.vue'),
    props: true,
  },
  { path: '/topics', component: () => import('./pages/TopicsPage.vue'), meta: { menu: 'menu.topics' } },
  { path: '/live', component: () => import('./pages/LiveTablesPage.vue'), meta: { menu: 'menu.live' } },
  {
    path: '/screen/orders',
    component: () => import('./pages/OrderScreenPage.vue'),
    meta: { menu: 'menu.screen', wall: true },
  },
  { path: '/:rest(.*)*', component: () => import('./pages/MissingPage.vue') },
]

export const router = createRouter({ history: createWebHistory(), routes })
