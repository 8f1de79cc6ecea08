/* SPDX-License-Identifier: Apache-2.0
 * What the parent files share. */
#ifndef ISO_SPAWN_H
#define ISO_SPAWN_H

/* Run fn(arg) in a thread that shares memory and descriptors with this process, but neither its
 * root nor, once changed, its namespaces; sleep until it has ended.  fn must end it by exit(2), and
 * runs under the rules of a child file.  Signals must be blocked.  0, or -errno of clone. */
long iso_in_thread(void (*fn)(void *), void *arg);

#endif
