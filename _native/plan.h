/* SPDX-License-Identifier: Apache-2.0
 * The contract with the types it needs, for files that are no child files. */
#ifndef ISO_PLAN_H
#define ISO_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "isolate.cdef.h"

#endif
