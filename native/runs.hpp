// Runs of tokens that a memory does not complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steerx {

// Fills hashes (r,) with those of runs (r, length) of tokens.
void run_hashes(std::span<const int32_t> runs, size_t length, std::span<uint32_t> hashes);

// Whether the last `length` tokens of a text also occur earlier in it.
bool ends_in_a_repeat(std::span<const int32_t> text, size_t length);

// Sets to 0 the shares (k,) of the tokens (k,) that would complete a run of three that already occurs in the
// text, or a run of `length` tokens whose hash is in `hashes` (sorted).
void leave_out_runs(std::span<const int32_t> text, std::span<const uint32_t> hashes, size_t length,
                    std::span<const int32_t> tokens, std::span<float> shares);

} // namespace steerx
