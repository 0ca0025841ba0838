// STEERX_WIDEST: a function whose loops use the widest registers that the machine has.
#pragma once

// The choice is made when the library is loaded, which sanitizers cannot follow.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) &&                           \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define STEERX_WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define STEERX_WIDEST
#endif
