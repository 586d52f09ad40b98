import { DefaultReporter, type TestModule } from 'vitest/node';

/** The usual report, and at its end the two lines by which `script/test` counts. */
export default class CountReporter extends DefaultReporter {
  override onTestRunEnd(...end: Parameters<DefaultReporter['onTestRunEnd']>): void {
    super.onTestRunEnd(...end);
    const [modules, errors] = end;
    const tests = (modules as readonly TestModule[]).flatMap((one) => [...one.children.allTests()]);
    const count = (state: string) => tests.filter((test) => test.result().state === state).length;
    const broken = modules.filter((one) => one.errors().length > 0).length + errors.length;
    console.log(`# pass ${count('passed')}\n# fail ${count('failed') + broken}`);
  }
}
