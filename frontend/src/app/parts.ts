/** The two halves of the app, each loaded when it is needed. */
export const loadHome = () => import('@/features/home/home');
export const loadEntrance = () => import('@/features/login/entrance');
