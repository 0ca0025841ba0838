// Log-probabilities of chosen tokens, straight from llama.cpp's logits.
#pragma once

#include "llama_api.hpp"

#include <cstdint>
#include <span>

namespace steerx {

// Everything is in nats. Optional outputs are left out by passing an empty span.
struct TokenScores {
    std::span<float> log_prob;     // (row,) log p(target)
    std::span<float> entropy;      // (row,) or empty
    std::span<int32_t> top_token;  // (row, top_k) most probable tokens, best first, or empty
    std::span<float> top_log_prob; // (row, top_k) or empty
    int32_t top_k = 0;
    std::span<double> expected;          // (n_vocab,) or empty: added to, the sum over rows of p
    std::span<const float> bias_factors; // (bias, n_vocab) or empty: exp of what is added to the logits
    std::span<float> biased;             // (bias, row) log p(target) under each logit bias
};

// Scores the outputs `batch_index` (row,) of the last decode call of `ctx` for `target` (row,).
// Rows are spread over `n_threads` threads; no logits are copied. Throws std::out_of_range when a row
// has no logits or a target is not a token of the vocabulary.
void score_tokens(const LlamaApi &api, llama_context *ctx, int32_t n_vocab, std::span<const int32_t> batch_index,
                  std::span<const int32_t> target, int32_t n_threads, const TokenScores &out);

} // namespace steerx
