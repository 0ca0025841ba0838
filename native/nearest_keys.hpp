// The keys of rows, and nearest neighbours by brute force, about as fast as the keys can be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steerx {

// Fills keys (row, d) with unit vectors along basis' (row / |row| - mean), of rows (row, n_embd), mean
// (n_embd,) and basis (n_embd, d). A row has the same key in any company.
void keys_of(std::span<const float> rows, std::span<const float> mean, std::span<const float> basis,
             std::span<float> keys);

// Rows of bytes, each times a factor of its own.
struct Keys {
    std::span<const int8_t> values; // (n, d)
    std::span<const float> scales;  // (n,)
    size_t d;
};

// Fills places and similarities (query, k) with the k <= n keys of the largest product with each of the
// queries (query, d), nearest first; of equal ones the first comes first. A query that is not finite is
// like no key.
void nearest_keys(const Keys &keys, std::span<const float> queries, size_t k, std::span<int64_t> places,
                  std::span<float> similarities);

} // namespace steerx
