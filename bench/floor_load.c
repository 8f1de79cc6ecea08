/* SPDX-License-Identifier: Apache-2.0
 * The floor's job, from text: "key value" and "step CODE PHASE PART FRESH n0 n1 n2 s0 s1 s2", strings in
 * hex, "-" for none. */
#define _GNU_SOURCE
#include "floor_runner.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *room = (char *)FLOOR_AT + ((sizeof(struct floor_arena) + 15) & ~15ul);

/* Bytes of a hex string, into the arena, with a NUL behind. */
static const char *take(const char *hex, uint32_t *len)
{
	char *at = room;
	size_t n = strcmp(hex, "-") ? strlen(hex) / 2 : 0;
	if (n + 16 > (size_t)((char *)FLOOR_AT + FLOOR_SIZE - room))
		floor_fail("job too large");
	for (size_t i = 0; i < n; i++) {
		unsigned byte;
		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			floor_fail("job: no hex");
		at[i] = (char)byte;
	}
	at[n] = 0;
	*len = (uint32_t)n;
	room += (n + 16) & ~15ul;
	return at;
}

static void step(struct floor_arena *a, char *text)
{
	static const char *const names[] = {
#define NAME(name) #name,
		FLOOR_STEPS(NAME)
#undef NAME
	};
	struct floor_step *s = &a->steps[a->n_steps++];
	char *word[10];
	if (a->n_steps > FLOOR_MAX_STEPS)
		floor_fail("job: too many steps");
	for (int i = 0; i < 10; i++)
		if (!(word[i] = strtok(i ? NULL : text, " \n")))
			floor_fail("job: short line");
	for (s->code = 0; s->code < FL_CODES && strcmp(names[s->code], word[0]); s->code++)
		;
	if (s->code == FL_CODES)
		floor_fail(word[0]);
	s->phase = (uint32_t)strtoul(word[1], NULL, 10);
	s->part = (uint32_t)strtoul(word[2], NULL, 10);
	s->fresh = (uint32_t)strtoul(word[3], NULL, 10);
	if (s->phase >= PH_COUNT || s->part > FLOOR_PROGRAM)
		floor_fail("job: phase or part");
	for (int i = 0; i < 3; i++) {
		s->n[i] = strtoull(word[4 + i], NULL, 10);
		s->s[i] = take(word[7 + i], &s->len[i]);
	}
}

struct floor_arena *floor_load(const char *path)
{
	int fd = memfd_create("floor", 0);
	if (fd < 0 || ftruncate(fd, FLOOR_SIZE) < 0 || dup2(fd, FLOOR_ARENA_FD) < 0)
		floor_fail("arena");
	void *at = mmap((void *)FLOOR_AT, FLOOR_SIZE, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_FIXED, FLOOR_ARENA_FD, 0);
	if (at != (void *)FLOOR_AT)
		floor_fail("mmap");
	struct floor_arena *a = at;
	static char line[1 << 20];
	uint32_t len;
	FILE *file = fopen(path, "r");
	if (!file)
		floor_fail(path);
	while (fgets(line, sizeof line, file)) {
		char *space = strchr(line, ' ');
		if (!space)
			floor_fail("job: no value");
		*space++ = 0;
		space[strcspn(space, "\n")] = 0;
		if (!strcmp(line, "step"))
			step(a, space);
		else if (!strcmp(line, "clone_flags"))
			a->clone_flags = strtoull(space, NULL, 10);
		else if (!strcmp(line, "uid_map"))
			a->uid_map = take(space, &len);
		else if (!strcmp(line, "gid_map"))
			a->gid_map = take(space, &len);
		else if (!strcmp(line, "program"))
			a->program = take(space, &len);
		else
			floor_fail(line);
	}
	fclose(file);
	return a;
}

void floor_option(struct floor_arena *a, struct floor_options *o, const char *text,
		  const char *const phases[])
{
	if (!strcmp(text, "direct"))
		o->direct = 1;
	else if (!strcmp(text, "template"))
		a->template = 1;
	else if (!strcmp(text, "live"))
		o->live = 1;
	else if (!strcmp(text, "spawn"))
		o->spawn = 1;
	else if (!strcmp(text, "ready"))
		o->ready = 1, a->clone_flags &= ~(uint64_t)(CLONE_NEWNET | CLONE_NEWIPC);
	else if (strncmp(text, "without=", 8))
		floor_fail(text);
	for (uint32_t i = 0; i < a->n_steps; i++)
		if ((o->ready && a->steps[i].phase == PH_network) ||
		    (!strncmp(text, "without=", 8) && !strcmp(phases[a->steps[i].phase], text + 8)))
			a->steps[i].off = 1;
}
