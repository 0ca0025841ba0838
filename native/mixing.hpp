// What a memory offers, mixed into a prediction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steerx {

// How similarities become what is offered.
struct Softness {
    float temperature;
    float closed_at; // the similarity up to which the gate is closed
    float open_at;   // the one from which it is open
};

// Fills shares (row, k) with the softmax of similarities (row, k), nearest first, times the weights, and
// gates (row,).
void weigh(std::span<const float> similarities, std::span<const float> weights, const Softness &softness,
           std::span<float> shares, std::span<float> gates);

// Every `step`-th float, as llama.cpp's samplers keep logits among other numbers.
struct Logits {
    float *first;
    size_t n;
    size_t step;
};

// Changes logits so that they give (1 - z sum_i shares_i) p(v) + z sum_i shares_i [tokens_i = v], up to a
// constant, with z = weight and p their softmax. A token may stand in several places; shares are not
// negative, and z times their sum is below 1. Throws std::out_of_range for a token beyond the logits.
void mix(const Logits &logits, std::span<const int32_t> tokens, std::span<const float> shares, double weight);

} // namespace steerx
