// Nearest neighbours by brute force, about as fast as the keys can be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steerx {

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
