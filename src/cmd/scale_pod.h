/* `holdfast scale` where the nodes are pods. Private to the verb. */
#ifndef HF_CMD_SCALE_POD_H
#define HF_CMD_SCALE_POD_H

#include "base/error.h"
#include "node_config.h"

/* Lets the members with ordinals from `replicas` on leave, highest first. Says what is left to do.
 */
int hf_scale_pod(const char *socket, unsigned replicas, unsigned timeout_s, struct hf_error *err);

#endif
