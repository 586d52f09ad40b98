// Records faults as the checker reads them.

/** An instance that can't get well for so long after a fault is a violation. */
const RECOVERY = 40_000;

/**
 * `fault(kind, instances, detail, run)` runs a fault between the records of its begin and its end, which is when
 * `recovered(ms)` says that all are well again. `instances` are the names of those in trouble, `null` is all.
 */
export function faultLog(history, recovered) {
  let faults = 0;
  return async (kind, instances, detail, run) => {
    faults += 1;
    const number = faults;
    history.write('fault', { phase: 'begin', number, fault: kind, instances, ...detail });
    try {
      await run();
      // To cut clients is no fault of the cluster, and goes on beside others.
      if (kind !== 'cut-clients') await recovered(RECOVERY);
    } catch (error) {
      history.write('not-recovered', { fault: kind, error: error.message });
      throw error;
    } finally {
      history.write('fault', { phase: 'end', number, fault: kind });
    }
  };
}
