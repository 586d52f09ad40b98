/** Demo people: `starling dev` names them in the page, no other server does. */
export interface DemoUser {
  username: string;
  displayName: string;
  password: string;
}

function read(): DemoUser[] {
  const content = document.querySelector<HTMLMetaElement>('meta[name="starling-demo"]')?.content;
  try {
    return content ? (JSON.parse(content) as DemoUser[]) : [];
  } catch {
    return [];
  }
}

export const demoUsers = read();

/** `?as=bob` logs this window in as Bob. */
export function wantedDemoUser(): DemoUser | undefined {
  const name = new URLSearchParams(location.search).get('as');
  return demoUsers.find((one) => one.username === name);
}
