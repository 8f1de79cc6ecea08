/* SPDX-License-Identifier: Apache-2.0
 * What the native tests share. */
#ifndef ISO_TEST_CHECK_H
#define ISO_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);         \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#endif
