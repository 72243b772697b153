/* The background process of a local cluster: starts its nodes, starts again the ones that end, and does
 * what `holdfast kill`, `start`, `scale` and `down` ask on <dir>/up.sock. To the nodes it is what kubelet
 * is to pods; it takes no part in the cluster, and its own end stops no node. */
#ifndef HF_LOCAL_SUPERVISOR_H
#define HF_LOCAL_SUPERVISOR_H

#include "local/layout.h"

/* Runs until asked to go down (or SIGTERM, SIGINT) and all nodes have ended. Takes <dir>/up.lock first:
 * HF_EBUSY if another supervisor runs. Logs to stderr. `l` changes as the cluster grows and shrinks. */
int hf_supervisor_run(struct hf_local *l, struct hf_error *err);

#endif
