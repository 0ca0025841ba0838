#include "runs.hpp"

#include <algorithm>

namespace steerx {
namespace {

class Hash {
  public:
    void add(int32_t token) {
        state_ = (state_ ^ (static_cast<uint64_t>(token) + 1)) * 0x9E3779B97F4A7C15U;
        state_ ^= state_ >> 29;
    }

    void add(std::span<const int32_t> tokens) {
        for (const int32_t token : tokens) {
            add(token);
        }
    }

    uint32_t value() const { return static_cast<uint32_t>(state_ >> 32); }

  private:
    uint64_t state_ = 0;
};

} // namespace

void run_hashes(std::span<const int32_t> runs, size_t length, std::span<uint32_t> hashes) {
    for (size_t i = 0; i < hashes.size(); ++i) {
        Hash hash;
        hash.add(runs.subspan(i * length, length));
        hashes[i] = hash.value();
    }
}

bool ends_in_a_repeat(std::span<const int32_t> text, size_t length) {
    return text.size() > length &&
           std::search(text.begin(), text.end() - 1, text.end() - static_cast<std::ptrdiff_t>(length), text.end()) !=
               text.end() - 1;
}

void leave_out_runs(std::span<const int32_t> text, std::span<const uint32_t> hashes, size_t length,
                    std::span<const int32_t> tokens, std::span<float> shares) {
    for (size_t end = 2; end < text.size(); ++end) {
        if (std::equal(text.end() - 2, text.end(), text.begin() + static_cast<std::ptrdiff_t>(end) - 2)) {
            for (size_t i = 0; i < tokens.size(); ++i) {
                if (tokens[i] == text[end]) {
                    shares[i] = 0.0f;
                }
            }
        }
    }
    if (hashes.empty() || text.size() + 1 < length) {
        return;
    }
    Hash begun;
    begun.add(text.last(length - 1));
    for (size_t i = 0; i < tokens.size(); ++i) {
        Hash whole = begun;
        whole.add(tokens[i]);
        if (std::binary_search(hashes.begin(), hashes.end(), whole.value())) {
            shares[i] = 0.0f;
        }
    }
}

} // namespace steerx
