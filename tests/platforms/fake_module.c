/* A PKCS#11 module that does what its file name says; for tests of the child process.
   Structures as in pkcs11t.h 2.40 on Unix: natural alignment, CK_ULONG is unsigned long. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef unsigned long U;
typedef struct { unsigned char major, minor; } Version;
typedef struct { Version cryptoki; char manufacturer[32]; U flags; char description[32]; Version library; } Info;
typedef struct { char description[64], manufacturer[32]; U flags; Version hardware, firmware; } SlotInfo;
typedef struct { char label[32], manufacturer[32], model[16], serial[16]; U flags, counts[10];
                 Version hardware, firmware; char time[16]; } TokenInfo;
typedef struct { U type; void *value; U length; } Attribute;
typedef U (*Function)(void);
typedef struct { Version version; Function functions[68]; } FunctionList;

static int is(const char *what) { return strcmp(BEHAVIOUR, what) == 0; }

static void note(const char *text) {
    int fd = open(NOTES, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(fd, text, strlen(text)) < 0) abort();
    close(fd);
}

static void fill(char *field, size_t size, const char *text) {
    memset(field, ' ', size);
    memcpy(field, text, strlen(text));
}

static U forbidden(void) { note("forbidden "); abort(); }

#ifdef CALLS
/* Each call without arguments, which does no harm where it is allowed. */
static void attempt(const char *name, long number) {
    char line[64];
    long result = syscall(number, 0L, 0L, 0L, 0L, 0L, 0L);
    snprintf(line, sizeof line, "%s=%d ", name, result < 0 ? errno : 0);
    note(line);
}

static void attempt_namespace(void) {
    long made = syscall(SYS_clone, 0x10000000L | SIGCHLD, 0L, 0L, 0L, 0L); /* CLONE_NEWUSER */
    if (made == 0) _exit(0);
    note(made > 0 ? "new-user-namespace=0 " : errno == EPERM ? "new-user-namespace=1 " : "new-user-namespace=2 ");
    struct { long flags, pidfd, child, parent, signal; } arguments = {0, 0, 0, 0, SIGCHLD};
    made = syscall(SYS_clone3, &arguments, 64L);
    if (made == 0) _exit(0);
    note(made > 0 ? "clone3=0 " : errno == ENOSYS ? "clone3=38 " : "clone3=1 ");
}
#endif

static U initialize(void *arguments) {
    note(arguments ? "initialize " : "initialize-null ");
    if (is("refuses-arguments") && arguments) return 7;
    if (is("fails")) return 6;
    if (is("crashes")) raise(SIGSEGV);
    if (is("aborts")) abort();
    if (is("eats-memory")) for (;;) { volatile char *more = malloc(1 << 26); if (!more) return 2; *more = 1; }
    if (is("hangs")) {
        char byte;
        int fd = open(FIFO, O_RDONLY);
        note(fd < 0 ? "interrupted " : "exchange-finished ");
        if (read(fd, &byte, 1) < 0) note("interrupted ");
        close(fd);
    }
    if (is("floods")) { /* every handle that may be the one for the answer */
        static char page[1 << 20];
        memset(page, 'x', sizeof page);
        for (int fd = 3; fd < 16; fd++) for (int n = 0; n < 8 && write(fd, page, sizeof page) > 0; n++) {}
    }
    if (is("forks") && fork() == 0) { note("forked "); for (;;) pause(); }
    if (is("old-call-table")) __asm__ volatile("int $0x80" : : "a"(20)); /* getpid of 32-bit programs */
    if (is("x32-call-table")) syscall(0x40000000 | SYS_getpid);
#ifdef CALLS
#define X(name) attempt(#name, SYS_##name);
    CALLS
#undef X
    attempt_namespace();
#endif
    if (is("prints")) {
        puts("{\"path\": \"/fake\", \"loaded\": true}");
        fprintf(stderr, "to stderr\n");
        fflush(stdout);
        if (write(1, "raw\n", 4) < 0) abort();
    }
    return 0;
}

static U finalize(void *reserved) {
    (void) reserved;
    note("finalize ");
    if (is("crashes-at-the-end")) raise(SIGSEGV);
    return 0;
}

static U get_info(Info *info) {
    memset(info, 0, sizeof *info);
    fill(info->manufacturer, 32, "Acme");
    fill(info->description, 32, is("hostile-text") ? "\x1b[31mA\xe2\x80\xae\xff" : "Acme module");
    info->library.major = 3;
    info->library.minor = 7;
    return 0;
}

static U get_slot_list(unsigned char present, U *slots, U *count) {
    if (present != 1) abort();
    if (is("endless-slots")) { *count = (U) -1; return 0; }
    U there = is("many-slots") ? 40 : 1;
    if (slots) {
        if (*count < there) return 0x150;
        for (U i = 0; i < there; i++) slots[i] = 100 + i;
    }
    *count = there;
    return 0;
}

static U get_slot_info(U slot, SlotInfo *info) {
    (void) slot;
    memset(info, 0, sizeof *info);
    fill(info->description, 64, "Acme One 00 00");
    return 0;
}

static U get_token_info(U slot, TokenInfo *info) {
    (void) slot;
    if (is("unrecognised-token")) return 0xE1;
    memset(info, 0, sizeof *info);
    fill(info->label, 32, "Ada");
    fill(info->manufacturer, 32, "Acme");
    fill(info->model, 16, "One");
    fill(info->serial, 16, "CANARY-4711");
    info->flags = is("locked") ? 0x4040C : 0x8040C;
    return 0;
}

static U open_session(U slot, U flags, void *application, void *notify, U *session) {
    (void) slot; (void) application; (void) notify;
    if (flags != 4) abort(); /* serial, read-only */
    *session = 9;
    return 0;
}

static U close_session(U session) { if (session != 9) abort(); note("close "); return 0; }

static U searched;

static U find_init(U session, Attribute *template, U count) {
    if (session != 9 || count != 1 || template->type != 0 || template->length != sizeof(U)
        || *(U *) template->value != 1) abort();
    searched = 0;
    return 0;
}

static U find(U session, U *objects, U room, U *count) {
    (void) session;
    if (is("too-many-found")) { *count = room + 1; return 0; }
    if (is("endless-objects")) { for (U i = 0; i < room; i++) objects[i] = i; *count = room; return 0; }
    *count = searched++ ? 0 : 1;
    objects[0] = 1;
    return 0;
}

static U find_final(U session) { (void) session; return 0; }

static U get_attribute(U session, U object, Attribute *attribute, U count) {
    (void) session; (void) object;
    if (count != 1) abort();
    if (is("huge-value")) { attribute->length = 1UL << 40; return 0; }
    if (is("no-value")) { attribute->length = (U) -1; return 0x11; }
    if (is("lies-about-length") && attribute->value) { attribute->length = 1UL << 40; return 0; }
    if (attribute->value) memcpy(attribute->value, "garbage!", 8);
    attribute->length = 8;
    return 0;
}

static FunctionList list;

U C_GetFunctionList(FunctionList **out) {
    if (is("no-list")) { *out = 0; return 0; }
    list.version.major = 2;
    list.version.minor = 40;
    for (int i = 0; i < 68; i++) list.functions[i] = forbidden;
    list.functions[0] = (Function) initialize;
    list.functions[1] = (Function) finalize;
    list.functions[2] = (Function) get_info;
    list.functions[4] = (Function) get_slot_list;
    list.functions[5] = (Function) get_slot_info;
    list.functions[6] = (Function) get_token_info;
    list.functions[12] = (Function) open_session;
    list.functions[13] = (Function) close_session;
    list.functions[24] = (Function) get_attribute;
    list.functions[26] = (Function) find_init;
    list.functions[27] = is("missing-function") ? 0 : (Function) find;
    list.functions[28] = (Function) find_final;
    *out = &list;
    return 0;
}
