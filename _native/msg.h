/* SPDX-License-Identifier: Apache-2.0
 * Messages with descriptors as the kernel takes them, for files that call no libc: socket(7), cmsg(3). */
#ifndef ISO_MSG_H
#define ISO_MSG_H

#include <stddef.h>

#define ISO_SOL_SOCKET       1
#define ISO_SCM_RIGHTS       1
#define ISO_MSG_CMSG_CLOEXEC 0x40000000
#define ISO_MSG_NOSIGNAL     0x4000
#define ISO_MSG_CTRUNC       8

struct iovec_k {
	void *base;
	size_t len;
};

struct msghdr_k {
	void *name;
	int namelen;
	struct iovec_k *iov;
	size_t iovlen;
	void *control;
	size_t controllen;
	unsigned int flags;
};

struct cmsghdr_k {
	size_t len;
	int level;
	int type;
};

#endif
