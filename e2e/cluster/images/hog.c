/* hog MIB: takes that much memory, says so, and keeps it. For tests of memory limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    long wanted = argc > 1 ? atol(argv[1]) : 64;
    for (long mib = 0; mib < wanted; mib++) {
        char *block = malloc(1 << 20);
        if (block == NULL) {
            fputs("no memory\n", stderr);
            return 1;
        }
        memset(block, 1, 1 << 20); /* memory counts once it is written to */
    }
    printf("holding %ld MiB\n", wanted);
    fflush(stdout);
    for (;;) {
        pause();
    }
}
