/* A copying garbage collector that puts the survivors back where the heap is.
 *
 *     remap_semispace [ROUNDS]    collections (default 6)
 *
 * Models a semispace collector with a heap at a fixed address: live objects are copied to fresh memory, with pointers that
 * already say where they will be, and one mremap with MREMAP_FIXED then puts the new space over the old one, which vanishes.
 * In every second round a process forked before the collection checks the old heap after it, as a program does that
 * writes a snapshot of itself.
 *
 * Expected: safe on every kernel.  Each space is one mapping, written from its start; the move is of a whole area.  Under
 * 2.6.6-anonmm the pages that are shared with the snapshot are copied by the move (RMAP.md section 3); nobody notices. */

#include "lib/remap.h"

#define HEAP 0x300000000UL
#define SPACE_PAGES 64
#define SPACE_BYTES (SPACE_PAGES * PAGE_SIZE)

struct object {
    struct object *left, *right;
    ulong value, forwarded; /* forwarded: its new address, during a collection */
};

static byte *heap = (byte *)HEAP;
static ulong used; /* bytes of the heap */
static struct object *root;
static ulong next_value;

static struct object *new_object(void)
{
    struct object *object = (struct object *)(heap + used);

    used += sizeof *object;
    *object = (struct object){ .value = next_value++ };
    return object;
}

/* A search tree without balance; the values arrive in an order that makes it one anyway. */
static ulong place_of(ulong value)
{
    return value * 0x9e3779b97f4a7c15UL;
}

static void insert(struct object *object)
{
    struct object **at = &root;

    while (*at)
        at = place_of(object->value) < place_of((*at)->value) ? &(*at)->left : &(*at)->right;
    *at = object;
}

/* Copies what `from` points to into the new space, once; returns where it will be. */
static struct object *forward(struct object *from, byte *space, ulong *space_used)
{
    if (!from)
        return 0;
    if (!from->forwarded) {
        memcpy(space + *space_used, from, sizeof *from);
        from->forwarded = HEAP + *space_used;
        *space_used += sizeof *from;
    }
    return (struct object *)from->forwarded;
}

static void collect(void)
{
    byte *space = map_anonymous(SPACE_BYTES, READ_WRITE);
    ulong space_used = 0;

    root = forward(root, space, &space_used);
    for (ulong scanned = 0; scanned < space_used; scanned += sizeof(struct object)) {
        struct object *object = (struct object *)(space + scanned);

        object->left = forward(object->left, space, &space_used);
        object->right = forward(object->right, space, &space_used);
    }
    long moved = mremap(space, SPACE_BYTES, SPACE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, HEAP); /* the call */
    if (is_error(moved))
        refused("the new space cannot replace the old one", moved);
    used = space_used;
}

struct found {
    ulong objects, sum, wrong;
};

static void walk(const struct object *object, struct found *found)
{
    if (!object)
        return;
    if ((byte *)object < heap || (byte *)object >= heap + used || object->forwarded ||
        (object->left && place_of(object->left->value) >= place_of(object->value)) ||
        (object->right && place_of(object->right->value) < place_of(object->value))) {
        found->wrong++;
        return;
    }
    found->objects++;
    found->sum += object->value;
    walk(object->left, found);
    walk(object->right, found);
}

/* Waits until the parent has collected, then looks at the heap as it was. */
static void check_snapshot(int told, ulong sum)
{
    struct found found = { 0 };
    byte word;

    checked("read", sys_read(told, &word, 1));
    walk(root, &found);
    quit(found.wrong || found.sum != sum);
}

/* Drops half of the tree: garbage for the next collection. */
static void forget(ulong round)
{
    if (root && root->left && round % 2)
        root->left = root->left->right;
    else if (root && root->right)
        root->right = root->right->left;
}

int main(int argc, char **argv)
{
    ulong rounds = number_argument(argc, argv, 1, 6);
    int told[2];

    checked("pipe", sys_pipe(told));
    map_at(heap, SPACE_PAGES, READ_WRITE);
    for (ulong round = 1; round <= rounds; round++) {
        struct found before = { 0 }, after = { 0 };
        int child = 0;

        while (used < SPACE_BYTES * 3 / 4)
            insert(new_object());
        forget(round);
        walk(root, &before);
        if (round % 2) {
            child = checked("fork", fork_flushed());
            if (!child)
                check_snapshot(told[0], before.sum);
        }
        collect();
        walk(root, &after);
        checked("write", sys_write(told[1], "", child != 0));
        int snapshot_wrong = child ? wait_for(child) : 0;
        print("round %lu: %lu objects live, %lu wrong%s\n", round, after.objects, after.wrong,
              !child ? "" : snapshot_wrong ? ", snapshot wrong" : ", snapshot ok");
        if (before.wrong || after.wrong || snapshot_wrong || before.sum != after.sum || before.objects != after.objects)
            return 1;
    }
    return 0;
}
